"""Several algorithms on several tasks and seeds: trained alike, measured alike, told apart only where the numbers do."""

from scalepilot.experiments.study.config import PlannedTask, StudyConfig, load_study, with_seeds
from scalepilot.experiments.study.runs import StudyRuns, run_study, study_folder
from scalepilot.experiments.study.write import summary, write_study

__all__ = [
    "PlannedTask",
    "StudyConfig",
    "StudyRuns",
    "load_study",
    "run_study",
    "study_folder",
    "summary",
    "with_seeds",
    "write_study",
]
