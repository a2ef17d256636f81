"""Regions on the sphere, for GEOWITHIN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from realmframe.errors import QueryError
from realmframe.query.tree import Shape

_Vector = npt.NDArray[np.float64]


def _vector(point: tuple[float, ...], position: int) -> _Vector:
    longitude, latitude = point[:2]
    if not (abs(longitude) <= 180 and abs(latitude) <= 90):
        raise QueryError(
            f"[{longitude}, {latitude}] is no longitude and latitude in degrees.", position=position,
            kind="invalid_argument",
        )  # fmt: skip
    return _unit(longitude, latitude)


def _unit(longitude: float, latitude: float) -> _Vector:
    lng, lat = math.radians(longitude), math.radians(latitude)
    return np.array([math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)])


def _invalid(message: str, position: int) -> QueryError:
    return QueryError(message, position=position, kind="invalid_argument")


def _loop(points: tuple[tuple[float, ...], ...], position: int) -> list[_Vector]:
    vectors = [_vector(p, position) for p in points]
    if points[0] != points[-1]:
        raise _invalid("A ring of a polygon must end where it begins.", position)
    kept = [v for i, v in enumerate(vectors) if i == 0 or not np.array_equal(v, vectors[i - 1])][:-1]
    if len(kept) < 3:
        raise _invalid("A ring of a polygon must have at least 3 different points.", position)
    if len({tuple(v) for v in kept}) < len(kept) or _crosses_itself(kept):
        raise _invalid("A ring of a polygon must not touch or cross itself.", position)
    return kept


def _side(a: _Vector, b: _Vector, c: _Vector) -> float:
    return float(np.dot(np.cross(a, b), c))


def _edges_cross(a: _Vector, b: _Vector, c: _Vector, d: _Vector) -> bool:
    acb, bda = -_side(a, b, c), _side(a, b, d)
    if acb * bda <= 0:
        return False
    cbd, dac = -_side(c, d, b), _side(c, d, a)
    return acb * cbd > 0 and acb * dac > 0


def _crosses_itself(loop: list[_Vector]) -> bool:
    n = len(loop)
    return any(
        _edges_cross(loop[i], loop[(i + 1) % n], loop[j], loop[(j + 1) % n])
        for i in range(n)
        for j in range(i + 2, n)
        if (j + 1) % n != i
    )


def _area_vector(loop: list[_Vector]) -> _Vector:
    """Sum the normals of a ring's edges: it points to the left of the way around."""
    total: _Vector = np.sum([np.cross(a, b) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)], axis=0)
    return total


def _smaller_side(loop: list[_Vector]) -> list[_Vector]:
    """Turn a ring around if its left side is more than half of the sphere."""
    return loop[::-1] if float(np.dot(_area_vector(loop), np.sum(loop, axis=0))) < -1e-12 else loop


class Region:
    """A circle, box or polygon.

    Parameters
    ----------
    shape : Shape
    position : int
        Where the query says so, for errors.
    """

    def __init__(self, shape: Shape, position: int) -> None:
        self.loops: list[list[_Vector]] = []
        self.centre: _Vector | None = None
        self.radius = shape.radius
        if shape.kind == "circle":
            self.centre = _vector(shape.loops[0][0], position)
            if not shape.radius >= 0:
                raise _invalid("The radius of a circle must not be negative.", position)
            return
        loops = shape.loops
        if shape.kind == "box":
            (x1, y1), (x2, y2) = (p[:2] for p in loops[0])
            loops = (((x1, y1), (x1, y2), (x2, y2), (x2, y1), (x1, y1)),)
        self.loops = [_loop(points, position) for points in loops]
        # A ring goes around the smaller part of the sphere, whichever way its points run.
        self.loops = [_smaller_side(loop) for loop in self.loops]
        if any(not self._in_loop(self.loops[0], v) for loop in self.loops[1:] for v in loop):
            raise _invalid("The second and further rings must be holes in the first.", position)

    @staticmethod
    def _in_loop(loop: list[_Vector], point: _Vector) -> bool:
        """Count how often the way from a point known to be outside crosses the ring."""
        away = _area_vector(loop)
        norm = float(np.linalg.norm(away))
        outside = -away / norm if norm > 1e-12 else -loop[0]
        outside = outside + 1e-7 * np.array([0.3, 0.5, 0.7])
        crossings = sum(_edges_cross(outside, point, a, b) for a, b in zip(loop, loop[1:] + loop[:1], strict=True))
        return crossings % 2 == 1

    def contains(self, longitude: float, latitude: float) -> bool:
        """Whether a point lies inside."""
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            return False
        point = _unit(longitude, latitude)
        if self.centre is not None:
            chord = 2 * math.sin(min(self.radius, math.pi) / 2)
            return float(np.sum((point - self.centre) ** 2)) <= chord * chord
        return sum(self._in_loop(loop, point) for loop in self.loops) % 2 == 1

    def contains_point(self, value: Any) -> bool:
        """Whether an embedded point (``type``, ``coordinates``) lies inside."""
        kind, coordinates = value.get("type"), value.get("coordinates") or []
        if not isinstance(kind, str) or kind.lower() != "point" or len(coordinates) < 2:
            return False
        return self.contains(float(coordinates[0]), float(coordinates[1]))
