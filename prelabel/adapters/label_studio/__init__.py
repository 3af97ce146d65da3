"""Label Studio: predictions go in (`push`), people's answers come out (`pull`), and it may ask for itself (`backend`).

    session    HTTP with its tokens, tries and errors    interface  what the project's labelling interface asks
    token      what opens it                             connection the commands' options for all of this
    project    a project and its tasks                   ids        ids -> numbers in bounded memory
    payload    rows -> tasks and predictions             embed      images inside tasks
    push       what is missing there, each exactly once  answers    annotations of a task -> one answer
    pull       answers -> CSV and training data          stored     predictions that are looked up by id
    images     a task's image -> bytes, within limits    backend    its machine-learning backend
    http       the backend's HTTP

Seen working with Label Studio 1.23 (Community).
"""
