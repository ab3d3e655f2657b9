# The page on any host: `docker build -t genre-crnn .`, then `docker run -p 7860:7860 genre-crnn`; see docs/hosting.md.

FROM python:3.12-slim AS packages
# For pip. With an extra index of PyTorch's CPU builds the image lacks CUDA, some 4 GB that the page does not use.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# Every package in the version that was tested, by its hash; requirements.txt takes newer ones, or an index with others.
ARG REQUIREMENTS=requirements.lock
RUN python -m venv /venv
COPY ${REQUIREMENTS} .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check -r ${REQUIREMENTS}

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 app && install -d -o app -g app /home/app/.cache /home/app/.cache/huggingface
COPY --from=packages /venv /venv
WORKDIR /home/app/genre-crnn
COPY . .
USER app
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860
EXPOSE 7860
# Without urllib, which would ask a proxy where one is set.
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import os; from http.client import HTTPConnection as C; c = C(os.environ['GRADIO_SERVER_NAME'], int(os.environ['GRADIO_SERVER_PORT'])); c.request('HEAD', '/'); exit(c.getresponse().status != 200)"]
# Python as process 1 does not hear SIGTERM.
STOPSIGNAL SIGINT
CMD ["python", "app.py"]
