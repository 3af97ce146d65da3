"""Requests of the Open Inference Protocol, and columns of its answers."""

import numpy as np

from prelabel.images import Pixels
from serving.inference_v2 import open_inference_pb2 as pb


def request(images: Pixels, model: str = "tiny", version: str = "") -> pb.ModelInferRequest:
    infer = pb.ModelInferRequest(model_name=model, model_version=version, id="mine")
    infer.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    infer.raw_input_contents.append(images.tobytes())
    return infer


def column(response: pb.ModelInferResponse, name: str) -> np.ndarray:
    position = [output.name for output in response.outputs].index(name)
    shape = list(response.outputs[position].shape)
    return np.frombuffer(response.raw_output_contents[position], "<f4").reshape(shape)
