"""The Orthanc plugin: chain of custody for a hospital's Orthanc, over the same core as the node. Only here `import
orthanc`.
"""
