"""Every command on a finished study: what it prints, its exit code, and that nothing hostile acts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fettle as package
from fettle import api
from fettle.cli.main import cli
from fettle.core.errors import InvalidInput

from .conftest import HOSTILE, MODELS, Fettle, check, events
