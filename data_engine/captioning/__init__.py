# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Captions by rejection sampling (OmniV-Med, arXiv 2504.14692, Figure 4), used by `data_engine.caption`.

A generator writes several candidate captions of an item, judges score each, and the best is kept if it is good enough.
"""
