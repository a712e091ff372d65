# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""`python -m evaluation.report`: the report of one or several runs."""

from evaluation.report.write import main

main()
