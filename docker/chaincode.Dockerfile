# The chaincode service of docker/compose.yaml; the context is the project's folder.
FROM golang:1.26 AS build
WORKDIR /chaincode
COPY chaincode/go.mod chaincode/go.sum ./
RUN go mod download
COPY chaincode/ ./
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /program .

FROM scratch
COPY --from=build /program /program
USER 65534:65534
ENTRYPOINT ["/program"]
