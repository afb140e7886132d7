"""The Dockerfile language: text -> stages of typed instructions. Nothing here touches a disk or a network."""
