# docker build -t cdc .
# docker run --rm -v "$PWD/cdc.yaml:/etc/cdc/cdc.yaml:ro" -e PGPASSWORD cdc

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/cdc ./cmd/cdc

FROM scratch
# For TLS to Postgres and Kafka with certificates of public authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/cdc /cdc
# Nobody: it writes no file. All state is in Kafka and in the replication slot.
USER 65532:65532
# SIGTERM drains and confirms, in less than 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/cdc"]
CMD ["run", "--config", "/etc/cdc/cdc.yaml"]
