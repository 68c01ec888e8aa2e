# The published images of Jaeger and the collector, each with a folder whose owner a new volume has. The collector has
# no shell, so its image also has busybox for the health check.
ARG JAEGER=jaegertracing/jaeger:2.13.0
ARG COLLECTOR=otel/opentelemetry-collector-contrib:0.155.0
ARG BUSYBOX=busybox:1.37.0-musl

FROM ${BUSYBOX} AS busybox
RUN mkdir /empty

FROM ${JAEGER} AS jaeger
COPY --from=busybox --chown=10001:10001 /empty /var/lib/jaeger

FROM ${COLLECTOR} AS otel-collector
COPY --from=busybox --chown=10001:10001 /empty /var/lib/otelcol
COPY --from=busybox /bin/busybox /busybox
