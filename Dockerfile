# The image of every workload: docker build -t patauth .
# Both bases can be replaced, by a mirror's or by digests. librdkafka and SQLite are
# linked in and need glibc, so the base is distroless/base and not static or Alpine.
ARG BUILDER=golang:1.26-bookworm
ARG BASE=gcr.io/distroless/base-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY provider/oauth/oryx ./provider/oauth/oryx
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    make build VERSION=${VERSION}

FROM ${BASE}
COPY --from=build /src/bin/patauth /usr/local/bin/patauth
COPY --from=build /src/LICENSE /usr/share/doc/patauth/LICENSE
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/patauth"]
CMD ["app"]
