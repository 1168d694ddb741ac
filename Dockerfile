# pvt_mm with the tested stack, for the CPU:
#   docker build -t pvt_mm .
# for CUDA, which takes torch's build from PyPI and a base image that has nvcc of the same CUDA version:
#   docker build -t pvt_mm:cuda --build-arg BASE=nvidia/cuda:13.0.0-devel-ubuntu24.04 --build-arg TORCH_INDEX_URL= --build-arg MMCV_CUDA=1 .
# docs/install.md says how to run it. .ci/run runs the steps as a script.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG MMCV_CUDA=0
ARG TORCH_CUDA_ARCH_LIST=
WORKDIR /opt/pvt_mm
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates g++ git make python3 python3-dev python3-venv
COPY . .
RUN --mount=type=cache,target=/root/.cache make setup
ENV PATH=/opt/pvt_mm/.venv/bin:${PATH}
