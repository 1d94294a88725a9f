# Orthanc of hospital.yaml and research.yaml, with the plugin at hand; the context is the project's folder.
# This tag has Debian 12's Python 3.11, Orthanc 1.12.6 and its Python plugin 5.0. A later one needs a Python that
# requirements/dev.txt is locked for: 3.11 or 3.13.
FROM orthancteam/orthanc:25.2.0
# Apart from the system's own packages; found by Orthanc's Python, the node's processes and the shell.
ENV PYTHONPATH=/opt/orthanc-ledger PATH=/opt/orthanc-ledger/bin:$PATH TCP_NODELAY=1
WORKDIR /project
COPY requirements/dev.txt requirements/
RUN pip install --no-cache-dir --require-hashes --target /opt/orthanc-ledger -r requirements/dev.txt
COPY pyproject.toml setup.cfg README.md NOTICE LICENSE ./
COPY dicom_scp/ dicom_scp/
COPY orthanc_ledger/ orthanc_ledger/
RUN pip install --no-cache-dir --no-deps --no-build-isolation --upgrade --target /opt/orthanc-ledger .
# What the image's entrypoint does as root only is done here, so that the container may have any user: plugins are
# enabled by being moved, and /etc/hostid is written.
RUN cd /usr/share/orthanc/plugins-available \
    && mv libOrthancPython.so libOrthancDicomWeb.so libOrthancExplorer2.so libOrthancGdcm.so ../plugins/ \
    && chmod a+w /etc/hostid
