"""Short local descriptors: projections worked out by hand, names in fingerprints, and maps that are converted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import picture, tiny_extractor

from effovpr_ros.core.errors import ConfigError, DescriptorShapeError
from effovpr_ros.features import local_projection
from effovpr_ros.features.codes import LOCAL_CODES, encode
from effovpr_ros.features.extractor_config import config_for_fingerprint
from effovpr_ros.features.local_projection import (
    FacetSource,
    LocalProjection,
    choose_projection,
    codes_name,
    fit_local_projection,
    setting_for_codes,
    shipped_projections,
)

SOURCE = FacetSource("a" * 64, 2, "value", True)


def test_components_span_the_directions_of_most_energy_about_zero():
    # Energy 9 + 9 along y, 4 + 4 along w, 1 along x, none along z. The mean is far from zero and stays in.
    rows = np.array([[0, 3, 0, 0], [0, 3, 0, 0], [0, 0, 0, 2], [0, 0, 0, 2], [1, 0, 0, 0]], np.float32)
    projection = fit_local_projection("hand", SOURCE, rows, 2)
    np.testing.assert_allclose(projection.components.T @ projection.components, np.diag([0, 1, 0, 1]), atol=1e-6)
    a, b = projection.project(np.array([[5, -7, 9, 2], [5, 1, -9, 3]], np.float32))
    assert a @ b == pytest.approx(-7 * 1 + 2 * 3, abs=1e-5)


def test_energy_is_spread_evenly_over_the_numbers():
    rows = np.random.default_rng(0).normal(size=(500, 40)).astype(np.float32) * 0.8 ** np.arange(40, dtype=np.float32)
    projection = fit_local_projection("hand", SOURCE, rows, 16)
    energy = np.square(projection.project(rows)).sum(axis=0)
    # Without the rotation the ratio is 0.8 ** -30 = 808.
    assert energy.max() / energy.min() < 60


@pytest.mark.parametrize("dimension", [0, 3, 6])
def test_impossible_dimensions_are_refused(dimension: int):
    with pytest.raises(ConfigError, match=f"{dimension} dimensions must be even"):
        fit_local_projection("hand", SOURCE, np.eye(4, dtype=np.float32), dimension)


def test_facets_of_another_length_are_refused():
    projection = LocalProjection("hand", SOURCE, np.eye(2, 4, dtype=np.float32))
    with pytest.raises(DescriptorShapeError, match="3 dimensions, projection hand takes 4"):
        projection.project(np.zeros((1, 3), np.float32))


def test_bytes_and_names_are_read_again():
    projection = LocalProjection("hand", SOURCE, np.array([[0.5, 0.25], [0.125, 1.0]], np.float32))
    again = LocalProjection.from_bytes("hand", projection.to_bytes())
    assert again.source == SOURCE
    np.testing.assert_array_equal(again.components, projection.components)
    assert setting_for_codes(codes_name(projection)) == "hand"
    assert codes_name(None) == LOCAL_CODES and setting_for_codes(LOCAL_CODES) == "full"


def test_the_setting_chooses_by_network_and_refuses_what_does_not_fit():
    shipped = shipped_projections()[0]
    assert choose_projection("auto", shipped.source) is shipped
    assert choose_projection(shipped.name, shipped.source) is shipped
    assert choose_projection("full", shipped.source) is None
    assert choose_projection("auto", SOURCE) is None
    with pytest.raises(ConfigError, match=r"'short' are unknown; use auto, full, .*" + shipped.name):
        choose_projection("short", SOURCE)
    with pytest.raises(ConfigError, match="not for FacetSource"):
        choose_projection(shipped.name, SOURCE)


def test_shipped_components_are_orthonormal_and_fit_in_24_kilobytes():
    for projection in shipped_projections():
        gram = projection.components @ projection.components.T
        np.testing.assert_allclose(gram, np.eye(projection.dimension), atol=2e-3)
        assert 529 * projection.dimension // 2 <= 24_000


def test_the_extractor_projects_what_it_would_have_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = tiny_extractor(tmp_path)
    assert (full.fingerprint.local_dim, full.fingerprint.local_codes) == (24, LOCAL_CODES)
    components = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0][:6].astype(np.float32)
    short = LocalProjection("tiny-pca6", full.facet_source, components)
    monkeypatch.setattr(local_projection, "shipped_projections", lambda: (short,))
    extractor = tiny_extractor(tmp_path)
    assert extractor.fingerprint.local_dim == 6
    assert "tiny-pca6" in full.fingerprint.differences(extractor.fingerprint)[-1]
    output = full.run([picture(1)], full.requested_outputs)
    facet = full.layout.facet(output.blocks[full.block], "value")[0].numpy()
    wanted = encode((facet - facet.mean(axis=0)) @ components.T)
    assert np.abs(extractor.extract([picture(1)])[0].local.codes - wanted).max() <= 1
    # A map's fingerprint brings its own codes back, whatever the default is.
    assert config_for_fingerprint(extractor.fingerprint).local_codes == "tiny-pca6"
    assert config_for_fingerprint(full.fingerprint).local_codes == "full"
