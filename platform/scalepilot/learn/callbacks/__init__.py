"""What watches training: tables, TensorBoard, trackers, videos."""

from scalepilot.learn.callbacks.base import Callback, CsvMetrics, Guarded, PolicyNow, Row
from scalepilot.learn.callbacks.beside import Beside
from scalepilot.learn.callbacks.live_plots import LivePlots
from scalepilot.learn.callbacks.tensorboard import TensorBoard
from scalepilot.learn.callbacks.tracking import check_tracking, trackers
from scalepilot.learn.callbacks.videos import Videos

__all__ = [
    "Beside",
    "Callback",
    "CsvMetrics",
    "Guarded",
    "LivePlots",
    "PolicyNow",
    "Row",
    "TensorBoard",
    "Videos",
    "check_tracking",
    "trackers",
]
