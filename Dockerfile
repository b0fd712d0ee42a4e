# Rules are compiled in a stage of their own, so that the image carries no opa.
FROM golang:1.26-bookworm AS rules
WORKDIR /src
COPY tools/opa tools/opa
RUN cd tools/opa && go build -trimpath -o /usr/local/bin/opa github.com/open-policy-agent/opa
COPY policies/rules policies/rules
RUN mkdir -p policies/dist && opa build -t wasm \
    -e countersign/object/deny -e countersign/object/warn -e countersign/change/deny -e countersign/change/warn \
    -o policies/dist/bundle.tar.gz policies/rules

# The programs that render, at the versions that every verdict is reached with.
FROM golang:1.26-bookworm AS programs
WORKDIR /src
COPY tools/kustomize tools/kustomize
COPY tools/helm tools/helm
RUN cd tools/kustomize && go build -trimpath -ldflags '-s -w' -o /usr/local/bin/kustomize sigs.k8s.io/kustomize/kustomize/v5 && \
    cd ../helm && go build -trimpath -ldflags '-s -w' -o /usr/local/bin/helm helm.sh/helm/v3/cmd/helm

FROM node:24-bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends git ca-certificates openssh-client && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/countersign
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts
COPY bin bin
COPY src src
COPY reports reports
COPY docs/*.md docs/
COPY --from=programs /usr/local/bin/kustomize /usr/local/bin/helm /usr/local/bin/
COPY --from=rules /src/policies/dist/bundle.tar.gz policies/dist/bundle.tar.gz
RUN ln -s /opt/countersign/bin/countersign.mjs /usr/local/bin/countersign && install -d -o node -g node /var/lib/countersign
USER node
# Hundreds of environments stay below half a GiB; what is short-lived need not be held.
ENV MALLOC_ARENA_MAX=2 NODE_OPTIONS=--max-semi-space-size=8
VOLUME /var/lib/countersign
EXPOSE 9443 8080
# What is read is what runs: the TypeScript sources, as they are.
ENTRYPOINT ["countersign"]
CMD ["serve", "--config", "/etc/countersign", "--data", "/var/lib/countersign", "--webhook", "0.0.0.0:9443", "--webhook-service", "countersign/countersign", "--http", "0.0.0.0:8080"]
