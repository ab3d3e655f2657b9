"""What comes with the program beside its code: models, weights, the page, its other commands."""

from pathlib import Path

_PACKAGE = Path(__file__).parent

# The repository, or where the wheel has the same files (pyproject.toml says which).
ROOT = _PACKAGE / "bundled" if (_PACKAGE / "bundled").is_dir() else _PACKAGE.parent
ASSETS = ROOT / "assets"
DEFAULT_MODEL = "crnn-transfer"
MODEL_VARIABLE = "GENRE_CRNN_MODEL"  # of the environment, which may name another
