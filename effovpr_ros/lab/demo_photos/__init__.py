"""Pictures of `effovpr demo photos`, rendered by `scripts/render_demo_photos.py`: a map, and queries that ask it.

`map/` and `queries/` hold JPEG pictures and `poses.csv`; a query without a row there is of another building.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
