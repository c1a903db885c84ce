# One image, two programs: `uploader` (the default) and `router`. The command `nfs-watch` is in it, too.
#   docker build -t localhost/nfs-watch:0.2.0 .        (or buildah, podman, nerdctl: docs/deploy.md)
# Any base with Python 3.11 or newer and its venv module will do; linux/arm64 and linux/amd64 alike.
ARG BASE=python:3.14-slim-trixie

FROM ${BASE} AS build
COPY requirements.lock /build/
# --only-binary: a missing wheel for this machine must fail the build, not start a compiler.
# --no-compile: modules are compiled afterwards, in a form that does not depend on the files' times.
RUN python3 -m venv /app \
 && /app/bin/python -m pip install --no-cache-dir --no-compile --require-hashes --only-binary=:all: \
      -r /build/requirements.lock \
 && /app/bin/python -m pip uninstall --quiet --yes pip setuptools \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /app/lib
COPY uploader /app/programs/uploader
COPY router /app/programs/router
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app/programs \
 && printf '%s\n' '#!/app/bin/python' 'import sys' 'sys.path[0] = "/app/programs"' \
      'from router.command.__main__ import main' 'main()' >/app/bin/nfs-watch \
 && chmod 755 /app/bin/nfs-watch

FROM ${BASE}
LABEL org.opencontainers.image.title="nfs-watch" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
# No file is written at run time, so the root file system may be read-only.
ENV PATH=/app/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app/programs
# A number, so that the kubelet can check runAsNonRoot. It must be the owner of the files on the share.
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["python", "-m"]
CMD ["uploader"]
