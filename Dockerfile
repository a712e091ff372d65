# Batch runs (clinic.batch) in a container that runs as no root, writes to /results and /tmp alone, and needs no network
# but the archive's; docs/hospital.md says how it is built and started. For research only: no medical device.
FROM python:3.11-slim-bookworm AS installed

WORKDIR /omniv-med
COPY pyproject.toml constraints.txt README.md LICENSE ./
# PyTorch's builds for the CPU are a tenth as large; for a GPU give another index, such as .../whl/cu128.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY hub_model hub_model
COPY data_engine data_engine
COPY train train
COPY clinic clinic
# The constraints pin every version. Editable, so that the folders are run where they lie, the model's with them.
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt --editable ".[clinic]" \
 && /venv/bin/python -m train.checkpoints.assemble \
 && rm -rf .cache

FROM python:3.11-slim-bookworm
COPY --from=installed /venv /venv
COPY --from=installed /omniv-med /omniv-med
# Nothing is looked up on the Hub, and what libraries write goes to /tmp.
ENV HF_HUB_OFFLINE=1 \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /omniv-med
# A number and no name, so that Kubernetes can see that it is not root.
USER 10001:10001
VOLUME ["/studies", "/results"]
ENTRYPOINT ["/venv/bin/python", "-m", "clinic.batch"]
CMD ["--help"]
