# The page in a container: docker build -t adaflow . && docker run -p 7860:7860 -v adaflow:/home/user/.cache adaflow
# For an NVIDIA GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t adaflow .
#                    docker run --gpus all -p 7860:7860 -v adaflow:/home/user/.cache adaflow
# For strangers: docker run -p 7860:7860 -v adaflow:/home/user/.cache -e ADAFLOW_PUBLIC=1 -e ADAFLOW_PASSWORD=… adaflow
#                (a Space is public by itself).
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# On a GPU Triton compiles the start of each fused kernel in C when it is first used.
# hadolint ignore=DL3008
RUN case "$TORCH_INDEX" in \
      */cpu) ;; \
      *) apt-get update \
         && apt-get install -y --no-install-recommends gcc libc6-dev \
         && rm -rf /var/lib/apt/lists/* ;; \
    esac

RUN useradd --create-home --uid 1000 user
ENV HOME=/home/user \
    PATH=/home/user/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_DISABLE_TELEMETRY=1
USER 1000
WORKDIR /home/user/app

# torch first, from the index that holds the wanted build of it; then everything else as pinned. xformers has
# no operator for a CPU, so it is left out there.
COPY --chown=1000 requirements.txt ./
RUN python -m venv /home/user/.venv \
    && pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)" \
    && case "$TORCH_INDEX" in \
         */cpu) grep -v '^xformers' requirements.txt > /tmp/requirements.txt ;; \
         *) cp requirements.txt /tmp/requirements.txt ;; \
       esac \
    && pip install -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY --chown=1000 . .

# Downloaded checkpoints and cached analyses. By -v adaflow:/home/user/.cache the next container has them too; without
# it each container begins with none.
RUN mkdir -p /home/user/.cache
VOLUME /home/user/.cache

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; port = os.environ.get('GRADIO_SERVER_PORT') or 7860; \
         urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=8)"]
CMD ["python", "app.py"]
