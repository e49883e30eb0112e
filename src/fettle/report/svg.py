"""Building blocks of the charts: escaped SVG elements and a frame with axes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from fettle.report.scales import Scale, axis
from fettle.report.text import plain

WIDTH, HEIGHT = 460.0, 300.0
CHARACTER = 7.0  # mean width of a character in the charts' type, in pixels of the drawing


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Children that are no Markup are escaped, and so are attribute values; `class_` is `class`,
    `_` in names becomes `-`; None leaves an attribute out."""
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(children)
    return Markup(f"<{name}{''.join(parts)}>") + inner + Markup(f"</{name}>")


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else plain(value)


def words(text: str, x: float, y: float, *, anchor: str = "start", class_: str | None = None) -> Markup:
    return tag("text", plain(text), x=x, y=y, text_anchor=anchor, class_=class_)


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", points=path, class_=class_)


def titled(element: str, title: str, **attributes: object) -> Markup:
    """An element with a tooltip."""
    return tag(element, tag("title", plain(title)), **attributes)


@dataclass(frozen=True, slots=True)
class Frame:
    """The area between the axes; x and y are its scales in pixels."""

    x: Scale
    y: Scale

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom."""
        return self.x.start, self.y.stop, self.x.stop, self.y.start

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x), self.y(y)

    def grid(self, x_metric: str, y_metric: str, currency: str = "", *, n: int = 5) -> Markup:
        """Gridlines, tick texts and titles of both axes."""
        left, top, right, bottom = self.box
        x_title, x_ticks = axis(x_metric, self.x, currency, n)
        y_title, y_ticks = axis(y_metric, self.y, currency, n)
        parts = [tag("line", x1=left, x2=right, y1=self.y(t), y2=self.y(t), class_="grid") for t, _ in y_ticks]
        parts += [words(text, left - 7, self.y(t) + 4, anchor="end", class_="tick") for t, text in y_ticks]
        parts += [tag("line", x1=self.x(t), x2=self.x(t), y1=bottom, y2=bottom + 4, class_="axis") for t, _ in x_ticks]
        parts += [words(text, self.x(t), bottom + 17, anchor="middle", class_="tick") for t, text in x_ticks]
        parts.append(tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        parts.append(words(x_title, (left + right) / 2, bottom + 36, anchor="middle", class_="name"))
        parts.append(words(y_title, 2.0, top - 12, class_="name"))
        return Markup("").join(parts)


def drawing(title: str, about: str, *children: Markup, width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """An SVG with a title and a description for those who cannot see it."""
    return tag(
        "svg",
        tag("title", plain(title)),
        tag("desc", plain(about)),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=plain(f"{title}. {about}"),
    )


def dot(frame: Frame, x: float, y: float, title: str, class_: str, radius: float = 4.0) -> Markup:
    px, py = frame.at(x, y)
    return titled("circle", title, cx=px, cy=py, r=radius, class_=f"dot {class_}")


def tagged(
    labels: Sequence[tuple[str, float, float, str]],
    points: Sequence[tuple[float, float]],
    box: tuple[float, float, float, float],
    *,
    room: float = 18.0,
) -> Markup:
    """Labels (text, x, y, class) beside their points, where they cover the fewest other points and labels;
    room: pixels by which they may stand out of the box on the right."""
    taken: list[tuple[float, float, float, float]] = []
    edge = (box[0], box[1], box[2] + room, box[3])
    parts = []
    for text, x, y, class_ in labels:
        wide = len(text) * CHARACTER
        spots = [(x + 9, y + 4), (x - 9 - wide, y + 4), (x - wide / 2, y - 10), (x - wide / 2, y + 19)]
        spots += [(x + 7, y - 8), (x + 7, y + 16), (x - 7 - wide, y - 8), (x - 7 - wide, y + 16)]
        areas = [(a, b - 11, a + wide, b + 3) for a, b in spots]
        best = min(range(len(spots)), key=lambda i: (_cost(areas[i], points, taken, edge), i))
        taken.append(areas[best])
        left, right = best in (1, 6, 7), areas[best][2]
        where = right if left else spots[best][0]
        parts.append(words(text, where, spots[best][1], anchor="end" if left else "start", class_=class_))
    return Markup("").join(parts)


def _cost(
    area: tuple[float, float, float, float],
    points: Sequence[tuple[float, float]],
    taken: Sequence[tuple[float, float, float, float]],
    box: tuple[float, float, float, float],
) -> float:
    left, top, right, bottom = area
    outside = left < box[0] or right > box[2] or top < box[1] - 8 or bottom > box[3]
    covered = sum(left - 4 < x < right + 4 and top - 4 < y < bottom + 4 for x, y in points)
    crossed = sum(left < a[2] and a[0] < right and top < a[3] and a[1] < bottom for a in taken)
    return 100.0 * outside + 20.0 * crossed + covered
