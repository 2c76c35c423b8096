# The agent's image: one static binary, nothing else.
#
#   docker build -t logferry:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# podman and buildah take the same arguments. For arm64 add `--platform linux/arm64`: nothing below
# names an architecture, so it builds on an arm64 machine as fast as here, and under emulation
# (qemu-user, binfmt_misc) many times slower.

# Any image with cargo, a C compiler and glibc 2.34 or newer.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-trixie

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# What `logferry version` names as the commit.
ARG REVISION=unknown
# glibc is linked in. Since 2.34 its name lookups (/etc/hosts, /etc/resolv.conf with search domains)
# need no library at run time.
#
# Dependencies stay in the cache. cargo goes by time stamps, and the cache may be younger than the
# sources that were copied: touched, they are compiled anew. One build at a time, as each takes its
# binary out of the cache.
RUN --mount=type=cache,id=logferry-target,target=/src/target,sharing=locked \
    find . -name target -prune -o -name '*.rs' -exec touch {} + \
 && host=$(rustc -vV | sed -n 's/^host: //p') \
 && LOGFERRY_COMMIT=$REVISION CARGO_PROFILE_RELEASE_STRIP=symbols \
    RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --release --locked --bin logferry --target "$host" \
 && mkdir -p /image/lib/logferry && chmod 0700 /image/lib/logferry \
 && cp "target/$host/release/logferry" /image/logferry

FROM scratch
# https://specs.opencontainers.org/image-spec/annotations/
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="logferry" \
      org.opencontainers.image.description="A sidecar that ships a pod's log files to Alibaba Cloud SLS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /image/logferry /logferry
# Where the state goes unless a volume is mounted there.
COPY --from=build --chown=65532:65532 /image/lib/ /var/lib/
USER 65532:65532
EXPOSE 9465
ENTRYPOINT ["/logferry"]
