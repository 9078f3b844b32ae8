"""What maps of fleets and cities cost, from measured costs of one item: prints the tables of docs/fleet.md.

`python scripts/fleet_costs.py [--build-s 0.1] [--core-cents-per-hour 4] ...`; each option is a cost of one item.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields

SIZES = (10**5, 2_800_000, 10**8)
_HOURS_WANTED = 8.0
_S_PER_HOUR = 3600.0
_MONTH_HOURS = 730.0


def _cost(default: float, description: str) -> float:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class Costs:
    """Costs of one item, measured (docs/fleet.md says how) but for the prices, which are to be put in."""

    build_s: float = _cost(0.26, "core seconds an image: decoding, network, points, writing")
    overhead: float = _cost(0.1, "share that the cluster adds, at most")
    local_bytes: float = _cost(23_276, "bytes of the local descriptors of a place")
    points_bytes: float = _cost(36_868, "bytes of its points")
    thumbnail_bytes: float = _cost(17_680, "bytes of its thumbnail")
    global_bytes: float = _cost(1_024, "bytes of its global descriptor in the store")
    index_bytes: float = _cost(1_088, "bytes of its codes and descriptor in the index")
    resident_bytes: float = _cost(100, "of them and of its number, bytes that stay in memory")
    image_bytes: float = _cost(200_000, "bytes of an image that is read")
    search_s: float = _cost(7e-9, "core seconds that a place costs a search without a hint")
    rest_s: float = _cost(0.3, "core seconds of a query beyond the search: network, re-ranking, points")
    shard_places: float = _cost(125_000, "places a shard")
    machine_cores: float = _cost(16, "cores of a machine")
    machine_bytes: float = _cost(64e9, "bytes of memory of a machine")
    core_cents_per_hour: float = _cost(4, "price of a core")
    gigabyte_cents_per_month: float = _cost(2.3, "price of storage")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for item in fields(Costs):
        option = f"--{item.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=item.default, help=item.metadata["description"])
    costs = Costs(**vars(parser.parse_args()))
    print("| places | " + " | ".join(f"{size:.2g}".replace("e+0", "e") for size in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    columns = [figures(size, costs) for size in SIZES]
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


def figures(places: int, costs: Costs) -> dict[str, str]:
    """What so many places cost, by name, for people."""
    build_core_hours = places * costs.build_s * (1.0 + costs.overhead) / _S_PER_HOUR
    machines = max(1, -(-build_core_hours // (_HOURS_WANTED * costs.machine_cores)))
    stored = places * (
        costs.local_bytes + costs.points_bytes + costs.thumbnail_bytes + costs.global_bytes + costs.index_bytes
    )
    resident = places * costs.resident_bytes
    serving = max(1, -(-resident // (0.5 * costs.machine_bytes)))
    search_core_s = places * costs.search_s
    query_core_s = search_core_s + costs.rest_s
    latency_s = costs.rest_s + search_core_s / (serving * costs.machine_cores)
    return {
        "shards": f"{-(-places // costs.shard_places):.0f}",
        "build, core hours": f"{build_core_hours:,.0f}",
        f"machines of {costs.machine_cores:.0f} cores for {_HOURS_WANTED:.0f} hours": f"{machines:.0f}",
        "build, hours on them": f"{build_core_hours / (machines * costs.machine_cores):.1f}",
        "build, cents": f"{build_core_hours * costs.core_cents_per_hour:,.0f}",
        "images read, GB": f"{places * costs.image_bytes / 1e9:,.0f}",
        "map, GB": f"{stored / 1e9:,.0f}",
        "map kept, cents a month": f"{stored / 1e9 * costs.gigabyte_cents_per_month:,.0f}",
        "in memory for a search, GB": f"{resident / 1e9:.2g}",
        "machines that serve": f"{serving:.0f}",
        "these, cents a month": f"{serving * costs.machine_cores * costs.core_cents_per_hour * _MONTH_HOURS:,.0f}",
        "search, core milliseconds": f"{1e3 * search_core_s:,.1f}",
        "query beyond the transport, milliseconds": f"{1e3 * latency_s:,.0f}",
        "a thousand queries, cents": f"{1e3 * query_core_s / _S_PER_HOUR * costs.core_cents_per_hour:.2g}",
    }


if __name__ == "__main__":
    main()
