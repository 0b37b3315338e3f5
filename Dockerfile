# ambiseg with its service, on a CPU.
#
#   docker build --tag ambiseg .
#
# PIP_OPTIONS may name a package index with builds of torch for CPUs alone, which are smaller.
#
#   docker run --rm --publish 127.0.0.1:8000:8000 --volume ./runs/first:/run-folder:ro ambiseg \
#       serve /run-folder --host 0.0.0.0
FROM python:3.12-slim

WORKDIR /opt/ambiseg
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir --constraint constraints.txt $PIP_OPTIONS '.[serve]'

RUN useradd --create-home ambiseg
USER ambiseg
WORKDIR /home/ambiseg

EXPOSE 8000
ENTRYPOINT ["ambiseg"]
