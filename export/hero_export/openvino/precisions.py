"""The precisions that a graph can have in OpenVINO."""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-weights")
"""By the names that variants have:

- "fp32": as exported.
- "fp16": weights stored in half precision; computed in it where the CPU can, and in float32 elsewhere.
- "bf16": weights stored and products computed in bfloat16.
- "int8": weights and activations in eight bits, the scales of activations from calibration.
- "int8-dynamic": weights in eight bits, activations too, with scales that are found at run time.
- "int8-weights": weights stored in eight bits, computed in float32: a quarter of the file, and for a single row of a wide product a
  quarter of the memory to read.

Weights in four bits are not among them: on a random model of two layers of width 768 they moved vectors by 17 % of the scale
(cosine 0.991), where eight bits moved them by 1 %, and took 1.06 of the time of float32 (eight bits: 0.95).
"""

CALIBRATED = frozenset({"int8"})
"""Those that need a calibration set."""

QUANTISED = frozenset({"int8", "int8-dynamic", "int8-weights"})
"""Those in which single layers can be kept in float32; OpenVINO chooses the others for a whole graph, when it is compiled."""

STORED_HALF = {"fp16": "fp16", "bf16": "bf16"}
"""How weights of products and tables are stored, by precision; in float32 where it is none of these."""

TABLES = "fp16"
"""How the tables of an int8 graph are stored: word embeddings are most of its weights, and no product."""

BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.3, "int8-dynamic": 1.0, "int8-weights": 1.0}
"""About how large files become: in "int8" tables have two bytes, and products one."""
