"""Frames with poses to places in a map: keyframe spacing, batches, resume."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

import cv2
import numpy as np

from effovpr_ros.core.errors import ImageError
from effovpr_ros.core.images import RgbImage
from effovpr_ros.core.poses import Pose
from effovpr_ros.features.extractor import FeatureExtractor
from effovpr_ros.mapping.build_config import BuildConfig
from effovpr_ros.mapping.place import NewPlace
from effovpr_ros.mapping.place_map import PlaceMap
from effovpr_ros.mapping.spacing import too_close
from effovpr_ros.sources.frame import Frame

_logger = logging.getLogger(__name__)

Decoded = tuple[Frame, RgbImage, str]
"""A frame, its image and its digest."""
Stored = dict[tuple[str, int | None], set[str]]
"""Digests by name and time, see `PlaceStore.sources`."""

_COMMIT_PLACES = 64
_THUMBNAIL_QUALITY = 80


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        added: places.
        skipped_spacing: frames too close to the last place.
        already_present: frames that an earlier build had added.
        unreadable: (frame, why) of every image that could not be read.
        seconds: whole build.
        extract_seconds: of it, preprocessing and forward passes.
        interrupted: stopped by Ctrl-C; the same command resumes.
    """

    added: int
    skipped_spacing: int
    already_present: int
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    extract_seconds: float
    interrupted: bool


@dataclass
class _Progress:
    added: int = 0
    skipped_spacing: int = 0
    already_present: int = 0
    known_by_name: int = 0
    extract_seconds: float = 0.0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def refuse(self, frame: Frame, error: ImageError, progress: Callable[[int], object] | None) -> None:
        _logger.warning("skipped %s: %s", frame.name, error)
        self.unreadable.append((frame.name, str(error)))
        self.advance(progress)

    def advance(self, progress: Callable[[int], object] | None) -> None:
        if progress:
            progress(1)


def build_map(
    place_map: PlaceMap,
    extractor: FeatureExtractor,
    frames: Iterable[Frame],
    config: BuildConfig,
    progress: Callable[[int], object] | None = None,
    *,
    points_of: Callable[[RgbImage], bytes] | None = None,
) -> BuildReport:
    """Append frames to a map.

    Frames that are stored already (same session, name, stamp and content) are passed over before they are decoded, so
    a build that was interrupted or killed resumes, and another source with the same names joins in full. An unreadable
    image is skipped, logged and reported. Images are decoded in a thread beside the network; places are committed
    every 64 frames. Ctrl-C keeps what is finished.

    Args:
        place_map: open for writing.
        extractor: of the map's model.
        frames: in driving order.
        config: spacing, batch and thumbnail size.
        progress: called with the number of frames that are done since the last call.
        points_of: encoded points of an image, for the map to keep; None: it keeps none.

    Raises:
        ModelMismatchError: the extractor is another model than the map's.
        MapError: the map cannot be written.
        SourceError: the source failed midway; what came before it is kept.
    """
    place_map.require_model(extractor.fingerprint)
    started = time.perf_counter()
    state = _Progress()
    pending: list[NewPlace] = []
    interrupted = False
    selected = _select(place_map, frames, config, state, progress)
    # Points are found beside the network's pass: each alone leaves parts of the processor unused.
    beside = ThreadPoolExecutor(1, "points")
    try:
        for batch in _batches(_decoded(selected, state, progress, 2 * config.batch_size), config.batch_size):
            before = time.perf_counter()
            images = [image for _, image, _ in batch]
            blobs = repeat(None) if points_of is None else beside.map(points_of, images)
            features = extractor.extract(images)
            state.extract_seconds += time.perf_counter() - before
            for (frame, image, digest), feature, points in zip(batch, features, blobs, strict=False):
                size_wh = (image.shape[1], image.shape[0])
                thumbnail = make_thumbnail(image, config.thumbnail_side)
                pending.append(
                    NewPlace(
                        frame.session,
                        frame.stamp_ns,
                        frame.name,
                        frame.pose,
                        frame.geo,
                        size_wh,
                        thumbnail,
                        feature,
                        points,
                        digest,
                    )
                )
            if len(pending) >= _COMMIT_PLACES:
                state.added += len(place_map.add(pending))
                pending = []
            if progress:
                progress(len(batch))
    except KeyboardInterrupt:
        interrupted = True
        _logger.warning("interrupted; the places so far are kept, the same command resumes")
    finally:
        beside.shutdown(cancel_futures=True)
        state.added += len(place_map.add(pending))
        place_map.flush()
    return BuildReport(
        added=state.added,
        skipped_spacing=state.skipped_spacing,
        already_present=state.already_present,
        unreadable=tuple(state.unreadable),
        seconds=time.perf_counter() - started,
        extract_seconds=state.extract_seconds,
        interrupted=interrupted,
    )


def shrink(image: RgbImage, longest_side: int) -> RgbImage:
    """An image whose longest side has at most so many pixels; smaller ones stay as they are."""
    scale = longest_side / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def make_thumbnail(image: RgbImage, longest_side: int) -> bytes:
    """JPEG of an image, shrunk so that its longest side has at most so many pixels."""
    image = shrink(image, longest_side)
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY]
    )
    if not done:
        raise ImageError(f"an image of shape {image.shape} cannot be stored as JPEG")
    return bytes(jpeg.tobytes())


def _select(
    place_map: PlaceMap,
    frames: Iterable[Frame],
    config: BuildConfig,
    state: _Progress,
    progress: Callable[[int], object] | None,
) -> Iterator[tuple[Frame, str]]:
    """Frames that are new and far enough from the last place, with their digests; without a pose none is too close."""
    stored: dict[str, Stored] = {}
    last: dict[str, Pose] = {}
    for frame in frames:
        if frame.session not in stored:
            stored[frame.session] = place_map.stored_sources(frame.session)
        digests = stored[frame.session].setdefault((frame.name, frame.stamp_ns or None), set())
        earlier = last.get(frame.session)
        is_close = frame.pose and earlier and too_close(earlier, frame.pose, config.spacing_m, config.spacing_deg)
        # A picture that no other shares its name with is not read before it is known to be wanted.
        if is_close and not digests:
            state.skipped_spacing += 1
            state.advance(progress)
            continue
        try:
            digest = frame.digest() if frame.digest is not None else ""
        except ImageError as error:
            state.refuse(frame, error, progress)
            # The next place is chosen by poses alone, as `spaced` does, whether or not this one can be read.
            if frame.pose and not is_close:
                last[frame.session] = frame.pose
            continue
        is_present = _is_present(digests, digest, frame.session, state)
        state.already_present += is_present
        if is_close and not is_present:
            state.skipped_spacing += 1
            state.advance(progress)
            continue
        if is_present:
            state.advance(progress)
        else:
            digests.add(digest)
            yield frame, digest
        if frame.pose:
            last[frame.session] = frame.pose


def _is_present(digests: set[str], digest: str, session: str, state: _Progress) -> bool:
    """Whether a picture is in the map, whose pictures of its session, name and time have these digests."""
    by_name = bool(digest) and "" in digests
    if by_name and not state.known_by_name:
        _logger.warning(
            "session %s was built by an earlier version, which kept only names and times: pictures of the same name "
            "and time count as the same; give pictures of another folder or bag another --session",
            session,
        )
    state.known_by_name += by_name
    return by_name or digest in digests


def _decoded(
    frames: Iterable[tuple[Frame, str]], state: _Progress, progress: Callable[[int], object] | None, ahead: int
) -> Iterator[Decoded]:
    """Decode in a thread, at most `ahead` images before they are needed; errors of the source come out here."""
    waiting: queue.Queue[Decoded | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: Decoded | BaseException | None) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def decode() -> None:
        try:
            for frame, digest in frames:
                try:
                    put((frame, frame.load(), digest))
                except ImageError as error:
                    state.refuse(frame, error, progress)
                except MemoryError:
                    state.refuse(frame, ImageError(f"{frame.name} does not fit into memory; shrink it"), progress)
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _batches(items: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
