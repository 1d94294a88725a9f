"""The content store on Kubo nodes of one's own, with a local store beside them: `content: kubo:FILE.yaml`."""
