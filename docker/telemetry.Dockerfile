# Jaeger and the collector as their makers publish them, each with a folder that its volume can take its owner
# from; and the collector, which has no shell, with something to ask it whether it is well.
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
