"""Which versions of which libraries made numbers: for the day on which one of them turns out to be wrong."""

from __future__ import annotations

from typing import Any

from aiida import orm
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from .processes import process_type

#: Characters with which an operator of pip's notation begins.
_OPERATORS = tuple('<>=!~')


def library_versions() -> dict[str, dict[str, int]]:
    """Return the number of calculations by library and version, both sorted."""
    counts: dict[str, dict[str, int]] = {}
    query = _query({'attributes': {'has_key': 'versions'}})
    query.add_projection('parameters', 'attributes.versions')
    for (versions,) in query.all():
        for library, version in versions.items():
            found = counts.setdefault(library, {})
            found[version] = found.get(version, 0) + 1
    return {library: dict(sorted(counts[library].items())) for library in sorted(counts)}


def jobs_with_version(library: str, version: str | None = None) -> list[orm.CalcJobNode]:
    """Return all calculations that used a library, the newest first.

    :param library: as :func:`library_versions` calls it, such as ``torch``
    :param version: only these versions, in the notation of pip: ``==2.5.*``, ``>=2.4,<2.6``; a bare ``2.5.1`` is that
        version alone; by default any
    :raises ValueError: if that is no version
    """
    wanted = _specifier(version)
    versions = [found for found in library_versions().get(library, {}) if _fits(found, version, wanted)]
    query = _query({f'attributes.versions.{library}': {'in': [*versions, '']}})
    query.add_projection('job', '*')
    return query.order_by({'job': [{'id': 'desc'}]}).all(flat=True)


def _query(filters: dict[str, Any]) -> orm.QueryBuilder:
    """Return a query for calculations of this plugin, tagged ``job``, by their output parameters, ``parameters``."""
    query = orm.QueryBuilder()
    query.append(orm.CalcJobNode, filters={'process_type': {'like': process_type('%')}}, tag='job')
    edge = {'label': 'output_parameters'}
    query.append(orm.Dict, with_incoming='job', edge_filters=edge, filters=filters, tag='parameters')
    return query


def _specifier(version: str | None) -> SpecifierSet:
    """Return the versions that are wanted; a bare version is compared on its own."""
    if version is None or version[:1] not in _OPERATORS:
        return SpecifierSet()
    try:
        return SpecifierSet(version)
    except InvalidSpecifier:
        raise ValueError(
            f'{version!r} is no version: write it as for pip, such as 2.5.1, ==2.5.* or >=2.4,<2.6'
        ) from None


def _fits(found: str, version: str | None, wanted: SpecifierSet) -> bool:
    """Return whether a version is wanted; one that is no version of pip's kind is compared as text."""
    if version is None or found == version:
        return True
    try:
        specifier = wanted if version[:1] in _OPERATORS else SpecifierSet(f'=={version}')
        return specifier.contains(Version(found), prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False
