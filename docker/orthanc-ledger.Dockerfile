# Node and keeper of docker/compose.yaml; the context is the project's folder.
FROM python:3.11-slim
WORKDIR /project
COPY requirements/dev.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/dev.txt
COPY pyproject.toml setup.cfg README.md NOTICE LICENSE ./
COPY dicom_scp/ dicom_scp/
COPY orthanc_ledger/ orthanc_ledger/
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
ENTRYPOINT ["orthanc-ledger"]
