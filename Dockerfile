# reszoo in a container. docs/docker.md describes how to run it.
#     CPU:         docker build -t reszoo .
#     NVIDIA GPUs: docker build --build-arg GPU=1 -t reszoo:gpu .
#     Extras:      docker build --build-arg EXTRAS="onnx litert" -t reszoo:export .
#     Fixed base:  docker build --build-context python:3.12-slim=docker-image://docker.io/library/python@sha256:DIGEST .

FROM python:3.12-slim AS wheel
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel /source

FROM python:3.12-slim

# Runs are stored in /workspace and datasets in /data. Any user can write there and in HOME, so that --user works.
RUN useradd --uid 10001 --user-group --create-home reszoo \
 && mkdir /workspace /data \
 && chown reszoo:reszoo /workspace /data \
 && chmod 1777 /workspace /data /home/reszoo

ARG GPU=0
ARG EXTRAS=""

# The dependencies are a layer of their own, so that a change of the code does not download them again. The CPU image on
# x86-64 installs tensorflow-cpu: the same code without CUDA kernels, at half the size. On ARM, tensorflow has no CUDA kernels.
COPY pyproject.toml /tmp/
RUN python -c "import sys, tomllib; project = tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']; \
extras = '${EXTRAS}'.split() + ['gpu'] * ('${GPU}' == '1'); known = project['optional-dependencies']; \
set(extras) <= set(known) or sys.exit('EXTRAS: ${EXTRAS} is invalid; expected names of ' + ', '.join(known)); \
print(*project['dependencies'], *(line for extra in extras for line in project['optional-dependencies'][extra]), sep='\n')" > /tmp/requirements.txt \
 && if [ "${GPU}" != 1 ] && [ "$(uname -m)" = x86_64 ]; then sed -i 's/^tensorflow>/tensorflow-cpu>/' /tmp/requirements.txt; fi \
 && pip install --no-cache-dir --root-user-action=ignore -r /tmp/requirements.txt \
 && rm -r /tmp/pyproject.toml /tmp/requirements.txt /usr/local/lib/python3.12/site-packages/tensorflow/include

# The run path of TensorFlow 2.21's library lacks some folders of the CUDA wheels. Without this it does not find a GPU.
RUN if [ "${GPU}" = 1 ]; then \
      python -c "import glob, sysconfig; print(*glob.glob(sysconfig.get_path('purelib') + '/nvidia/*/lib'), sep='\n')" \
        > /etc/ld.so.conf.d/nvidia-wheels.conf \
      && ldconfig; \
    fi

RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --root-user-action=ignore --no-deps /wheel/*.whl

# The version of the package, which a test compares.
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="reszoo" \
      org.opencontainers.image.description="Residual networks in TensorFlow and Keras: build, train, measure, grow and ship" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV HOME=/home/reszoo \
    RESZOO_DATA=/data \
    RESZOO_HOME=/data \
    HF_HOME=/data/huggingface \
    RESZOO_EXPECT_GPU=${GPU} \
    TF_CPP_MIN_LOG_LEVEL=2
USER reszoo
WORKDIR /workspace
VOLUME ["/workspace", "/data"]
# serve-check --host 0.0.0.0
EXPOSE 8501
ENTRYPOINT ["reszoo"]
CMD ["--help"]
