"""Whether a run or a policy is what it says: files, hashes, decisions, stored results evaluated again, sound figures."""

from scalepilot.verify.check import verify_path
from scalepilot.verify.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "verify_path"]
