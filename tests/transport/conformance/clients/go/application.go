package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"lightkeeper/client/edge"
	"lightkeeper/client/orders"
)

const (
	deadline = 30 * time.Second
	poll     = 20 * time.Millisecond
)

// runApplication does what an application of 2021 does, adds what it saw to the report, and returns the error of its
// last call, or of the one that failed before it.
func runApplication(address string, order *orders.Application, report *orders.Report) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	channel, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer channel.Close()
	agent := edge.NewAgentClient(channel)

	loaded, err := agent.LoadModel(ctx, &edge.LoadModelRequest{Url: order.Url, Name: order.Model})
	if err != nil {
		return err
	}
	list, err := agent.ListModels(ctx, &edge.ListModelsRequest{})
	if err != nil {
		return err
	}
	for _, model := range list.Models {
		report.Models = append(report.Models, model.Name)
	}

	var data bytes.Buffer
	for _, element := range []float32{1, 2, 3, 4} {
		binary.Write(&data, binary.LittleEndian, element)
	}
	input := &edge.Tensor{
		TensorMetadata: loaded.Model.InputTensorMetadatas[0],
		Data:           &edge.Tensor_ByteData{ByteData: data.Bytes()},
	}
	predict := &edge.PredictRequest{Name: order.Model, Tensors: []*edge.Tensor{input}}
	predicted, err := agent.Predict(ctx, predict)
	if err != nil {
		return err
	}
	output := predicted.Tensors[0].GetByteData()
	for ; len(output) >= 4; output = output[4:] {
		report.Outputs = append(report.Outputs, math.Float32frombits(binary.LittleEndian.Uint32(output)))
	}

	_, err = agent.CaptureData(ctx, &edge.CaptureDataRequest{
		ModelName:          order.Model,
		CaptureId:          order.CaptureId,
		InferenceTimestamp: &edge.Timestamp{Seconds: time.Now().Unix()},
		InputTensors:       predict.Tensors,
		OutputTensors:      predicted.Tensors,
	})
	if err != nil {
		return err
	}
	for {
		state, err := agent.GetCaptureDataStatus(ctx, &edge.GetCaptureDataStatusRequest{CaptureId: order.CaptureId})
		if err != nil {
			return err
		}
		if state.Status == edge.CaptureDataStatus_SUCCESS {
			break
		}
		if state.Status != edge.CaptureDataStatus_IN_PROGRESS {
			return errors.New("the capture was not delivered: " + state.Status.String())
		}
		time.Sleep(poll)
	}

	if _, err = agent.UnLoadModel(ctx, &edge.UnLoadModelRequest{Name: order.Model}); err != nil {
		return err
	}
	_, err = agent.Predict(ctx, predict)
	return err
}
