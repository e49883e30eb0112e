"""From a log of trials to the answer, its tables and one self-contained HTML page. Pure: reads nothing but the log."""
