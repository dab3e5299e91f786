"""What the annotations of each data set's release look like, one reader per schema."""

from __future__ import annotations

from hero_train.prepare.schemas.captions import TVC
from hero_train.prepare.schemas.questions import HOW2QA, TVQA
from hero_train.prepare.schemas.retrieval import DIDEMO, HOW2R, MSRVTT, TVR
from hero_train.prepare.schemas.schema import Schema
from hero_train.prepare.schemas.statements import VIOLIN

SCHEMAS: dict[str, Schema] = {schema.name: schema for schema in (TVR, HOW2R, DIDEMO, MSRVTT, TVQA, HOW2QA, VIOLIN, TVC)}
"""All of them, by the name that ``--schema`` takes."""
