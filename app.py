# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Opens the demo page as a Hugging Face Space does: `python app.py`, with the settings of the environment.

OMNIV_MED_MODEL names the model, a folder or a Hub id (default: hub_model beside this file). `python -m demo --help`
lists all that can be set.
"""

from __future__ import annotations

from demo.__main__ import main

if __name__ == "__main__":
    main([])
