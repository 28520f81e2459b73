# fer on a CPU, as a user who is not root:
#     docker build -t fer .
# With PyTorch's CPU builds the image is 6 GB smaller: name their index, which the install page of pytorch.org gives, by
#     docker build -t fer --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" fer predict source=photo.jpg ckpt=fer2013_vgg9
FROM python:3.11-slim-bookworm

RUN useradd --create-home fer && mkdir /work && chown fer /work
ARG PIP_EXTRA_INDEX_URL=
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[export]" && rm -r /src

USER fer
WORKDIR /work
# Matplotlib and torch keep small caches; any user may write here
ENV MPLCONFIGDIR=/tmp/matplotlib TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
ENTRYPOINT ["fer"]
CMD ["--help"]
