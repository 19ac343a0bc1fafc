"""Croissant 1.0: a dataset described for machines, in JSON-LD."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from safer_offline.datasets.publishing.cards import keywords
from safer_offline.datasets.publishing.release import EPISODES, Release, ReleasedFile

# The context of the specification, word for word; a reader compares it.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
DATA_TYPES = {"b": "sc:Boolean", "i": "sc:Integer", "u": "sc:Integer", "f": "sc:Float"}
COLUMNS = {
    "episode": "counts the episodes from 0",
    "start": "first row of the episode in the HDF5 file",
    "length": "steps",
    "return": "sum of the rewards",
    "cost": "sum of the costs",
    "terminated": "whether it truly ended; else it was cut off",
    "seed": "seed of its reset",
    "behavior": "who acted",
}


def render_croissant(release: Release, episodes: pd.DataFrame) -> str:
    """The croissant.json of a release.

    The transitions are described as a file, because Croissant cannot look into HDF5; the table
    of episodes also as records, which `mlcroissant` can iterate.

    Args:
        release: What is published; its files must hold the table of episodes.
        episodes: That table, as it was written.
    """
    files = {file.name: file for file in release.files}
    known = release.license
    content: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": release.name.replace("/", "-"),
        "alternateName": release.title,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": release.summary,
        "version": f"{release.version}.0.0",
        "license": known.url if known else release.license_title,
        "creator": {"@type": "Person", "name": release.metadata.author},
        "datePublished": release.date,
        "keywords": keywords(release),
        "citeAs": release.citation,
        "isLiveDataset": False,
        "distribution": [
            _file_object(
                release,
                release.data,
                encoding="application/x-hdf5",
                description="all transitions: one flat HDF5 file in the layout of DSRL",
            ),
            _file_object(
                release,
                files[EPISODES],
                encoding="application/x-parquet",
                description="one row an episode",
            ),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "episodes",
                "name": "episodes",
                "description": "return, cost and length of each episode",
                "key": {"@id": "episodes/episode"},
                "field": [_field(name, column) for name, column in episodes.items()],
            }
        ],
    }
    if release.repository:
        content["url"] = f"https://huggingface.co/datasets/{release.repository}"
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _file_object(
    release: Release, file: ReleasedFile, *, encoding: str, description: str
) -> dict[str, Any]:
    # A reader who has only this description finds the file on the hub, at this very version;
    # without a hub the file lies beside it.
    place = f"https://huggingface.co/datasets/{release.repository}/resolve/{release.tag}/"
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "description": description,
        "contentUrl": (place if release.repository else "") + file.name,
        "contentSize": f"{file.size} B",
        "encodingFormat": encoding,
        "sha256": file.sha256,
    }


def _field(name: object, column: pd.Series[Any]) -> dict[str, Any]:
    kind = getattr(column.dtype, "kind", "O")
    return {
        "@type": "cr:Field",
        "@id": f"episodes/{name}",
        "name": str(name),
        "description": COLUMNS.get(str(name), "a column of the collector's own"),
        "dataType": DATA_TYPES.get(kind, "sc:Text"),
        "source": {"fileObject": {"@id": EPISODES}, "extract": {"column": str(name)}},
    }
