// The client program in Go: reads orders (orders.proto) and reports what grpc-go makes of them.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"lightkeeper/client/orders"
)

const unlimited = 1 << 30

// raw is a codec of bytes that are left as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (raw) Unmarshal(data []byte, value any) error {
	*value.(*[]byte) = bytes.Clone(data)
	return nil
}

type place struct{ address, connection string }

type program struct {
	channels map[place]*grpc.ClientConn
	cancels  map[int32]context.CancelFunc
	output   sync.Mutex
}

func (p *program) tell(report *orders.Report) {
	line, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(report)
	if err != nil {
		fmt.Fprintf(os.Stderr, "no report of order %d: %v\n", report.Id, err)
	}
	p.output.Lock()
	defer p.output.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

func (p *program) begin(order *orders.Order) error {
	switch what := order.Order.(type) {
	case *orders.Order_Call:
		return p.beginCall(order, what.Call)
	case *orders.Order_Cancel:
		p.cancels[what.Cancel.Id]()
	case *orders.Order_Close:
		for place, channel := range p.channels {
			if place.address == order.Address {
				channel.Close()
				delete(p.channels, place)
			}
		}
	case *orders.Order_Application:
		go func() {
			report := &orders.Report{Id: order.Id}
			addStatus(report, runApplication(order.Address, what.Application, report))
			p.tell(report)
		}()
		return nil
	default:
		return fmt.Errorf("order %d orders nothing", order.Id)
	}
	p.tell(&orders.Report{Id: order.Id})
	return nil
}

func (p *program) channel(address string, call *orders.Call) (*grpc.ClientConn, error) {
	where := place{address, call.Connection}
	if channel := p.channels[where]; channel != nil {
		return channel, nil
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(unlimited)),
	}
	if call.Gzip {
		options = append(options, grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip")))
	}
	if call.KeepaliveMs != 0 {
		often := keepalive.ClientParameters{Time: milliseconds(call.KeepaliveMs), PermitWithoutStream: true}
		options = append(options, grpc.WithKeepaliveParams(often))
	}
	channel, err := grpc.NewClient(address, options...)
	p.channels[where] = channel
	return channel, err
}

func (p *program) beginCall(order *orders.Order, call *orders.Call) error {
	channel, err := p.channel(order.Address, call)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if call.TimeoutMs != 0 {
		ctx, cancel = context.WithTimeout(context.Background(), milliseconds(call.TimeoutMs))
	}
	p.cancels[order.Id] = cancel
	for _, entry := range call.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, entry.Key, string(entry.Value))
	}
	go func() {
		defer cancel()
		report := &orders.Report{Id: order.Id}
		var initial, trailing metadata.MD
		err := channel.Invoke(ctx, call.Method, &call.Body, &report.Body,
			grpc.Header(&initial), grpc.Trailer(&trailing), grpc.WaitForReady(call.WaitForReady))
		addStatus(report, err)
		report.InitialMetadata, report.TrailingMetadata = entries(initial), entries(trailing)
		p.tell(report)
	}()
	return nil
}

func addStatus(report *orders.Report, err error) {
	found := status.Convert(err)
	report.Code, report.Message = int32(found.Code()), found.Message()
	for _, detail := range found.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			report.Refusal = &orders.Refusal{Reason: info.Reason, Domain: info.Domain, Metadata: info.Metadata}
		}
	}
}

func entries(md metadata.MD) (found []*orders.Entry) {
	for key, values := range md {
		for _, value := range values {
			found = append(found, &orders.Entry{Key: strings.ToLower(key), Value: []byte(value)})
		}
	}
	return found
}

func milliseconds(count int32) time.Duration { return time.Duration(count) * time.Millisecond }

func main() {
	p := &program{channels: map[place]*grpc.ClientConn{}, cancels: map[int32]context.CancelFunc{}}
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			return
		}
		order := &orders.Order{}
		if err = protojson.Unmarshal(line, order); err == nil {
			err = p.begin(order)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
