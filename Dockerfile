# Rules are compiled in a stage of their own, so that the image carries no opa.
FROM golang:1.26-bookworm AS rules
WORKDIR /src
COPY tools/opa tools/opa
RUN cd tools/opa && go build -trimpath -o /usr/local/bin/opa github.com/open-policy-agent/opa
COPY policies/rules policies/rules
RUN mkdir -p policies/dist && opa build -t wasm \
    -e countersign/object/deny -e countersign/object/warn -e countersign/change/deny -e countersign/change/warn \
    -o policies/dist/bundle.tar.gz policies/rules

FROM node:24-bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends git ca-certificates openssh-client && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/countersign
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts
COPY bin bin
COPY src src
COPY reports reports
COPY --from=rules /src/policies/dist/bundle.tar.gz policies/dist/bundle.tar.gz
RUN ln -s /opt/countersign/bin/countersign.mjs /usr/local/bin/countersign && install -d -o node -g node /var/lib/countersign
USER node
VOLUME /var/lib/countersign
EXPOSE 9443
# What is read is what runs: the TypeScript sources, as they are.
ENTRYPOINT ["countersign"]
CMD ["serve", "--config", "/etc/countersign", "--data", "/var/lib/countersign", "--webhook", "0.0.0.0:9443", "--webhook-url", "https://countersign.countersign.svc:9443/validate"]
