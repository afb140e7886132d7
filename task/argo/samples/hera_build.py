"""A workflow that builds with Limpet and deploys by digest, written with Hera.

`python hera_build.py` prints it as YAML; `workflow.create()` would submit it.
"""

from hera.workflows import DAG, Container, Parameter, Task, Workflow
from hera.workflows.models import TemplateRef

with Workflow(generate_name="hera-build-", entrypoint="main") as workflow:
    deploy = Container(
        name="deploy",
        image="registry.example.com/tools/kubectl:1.31",
        command=["kubectl"],
        args=["set", "image", "deployment/app", "app={{inputs.parameters.image}}"],
        inputs=[Parameter(name="image")],
    )
    with DAG(name="main"):
        build = Task(
            name="build",
            template_ref=TemplateRef(name="limpet", template="build-from-git"),
            arguments={
                "repository": "https://git.example.com/team/app.git",
                "image": "registry.example.com/team/app:1.0",
                "labels": '{"org.opencontainers.image.version": "1.0"}',
            },
        )
        build >> Task(
            name="deploy",
            template=deploy,
            arguments={"image": "{{tasks.build.outputs.parameters.image-ref}}"},
        )

if __name__ == "__main__":
    print(workflow.to_yaml())
