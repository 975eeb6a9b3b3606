"""Two engines, one experiment: does Stable-Baselines3 get what RLlib gets?"""

from scalepilot.crosscheck.runs import ENGINES, CrossCheck, crosscheck, summary
from scalepilot.crosscheck.verdict import Agreement, agreement

__all__ = ["ENGINES", "Agreement", "CrossCheck", "agreement", "crosscheck", "summary"]
