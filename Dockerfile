# One image for each role, by the extra it needs: edge (no torch), cloud, or training.
#   docker build --build-arg EXTRA=edge -t sliceloop-edge:0.1.0 .

FROM python:3.11.13-slim-bookworm AS build
ARG EXTRA=edge
# For a GPU trainer: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/sliceloop
WORKDIR /source
COPY . .
RUN /opt/sliceloop/bin/pip install --extra-index-url "${TORCH_INDEX}" ".[${EXTRA}]"

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/sliceloop /opt/sliceloop
ENV PATH=/opt/sliceloop/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN useradd --system --uid 10001 --home-dir /var/lib/sliceloop --create-home sliceloop
USER sliceloop
WORKDIR /var/lib/sliceloop
ENTRYPOINT []
CMD ["sliceloop", "--help"]
