// Drives a session with the client that openapi-generator makes: `drive URL SHARE SESSION`; prints what it saw.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"time"

	watch "example.org/site/nfswatch"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// sure makes a call that can be repeated until a program answers it: 5xx says so, on a machine that is slow.
func sure[T any](call func() (T, *http.Response, error)) (T, error) {
	for {
		value, answer, err := call()
		if err == nil || answer == nil || answer.StatusCode < 500 {
			return value, err
		}
		time.Sleep(time.Second)
	}
}

// code returns the code of the problem document that the call was answered with.
func code(err error) watch.Code {
	var answered *watch.GenericOpenAPIError
	if !errors.As(err, &answered) {
		panic(fmt.Sprint("no refusal: ", err))
	}
	return answered.Model().(watch.Problem).Code
}

func main() {
	url, share, name := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	settings := watch.NewConfiguration()
	settings.Servers = watch.ServerConfigurations{{URL: url}}
	client := watch.NewAPIClient(settings)
	sessions := client.SessionsAPI

	asked := watch.NewStartRequest()
	asked.SetSession(name)
	asked.SetExtensions([]string{".bin"})
	started, _, err := sessions.Start(ctx).StartRequest(*asked).Execute()
	must(started, err)
	_, _, again := sessions.Start(ctx).StartRequest(*asked).Execute()

	for file, size := range map[string]int{"a.bin": 1000, "b.bin": 70000} {
		hidden := filepath.Join(share, started.Folder, "."+file)
		must(0, os.WriteFile(hidden, make([]byte, size), 0o644))
		must(0, os.Rename(hidden, filepath.Join(share, started.Folder, file)))
	}

	look := func(wait int32) watch.SessionStatus {
		return must(sure(sessions.Status(ctx).Session(name).Wait(wait).Execute)).Sessions[0]
	}
	receipts := func() [][2]any {
		var found [][2]any
		for _, one := range must(sure(sessions.Files(ctx).Session(name).State(watch.DONE).Execute)).Files {
			if receipt := one.Receipt.Get(); receipt != nil {
				found = append(found, [2]any{receipt.Blob, receipt.Size})
			}
		}
		sort.Slice(found, func(i, j int) bool { return found[i][0].(string) < found[j][0].(string) })
		return found
	}
	for look(0).Files.Completed < 2 {
		time.Sleep(100 * time.Millisecond)
	}
	for len(receipts()) < 2 {
		time.Sleep(100 * time.Millisecond)
	}
	receipted := receipts()
	stopped := must(sure(sessions.Stop(ctx).StopRequest(*watch.NewStopRequest(name)).Execute))
	ended := look(30)
	for ended.State != watch.ENDED {
		ended = look(30)
	}
	var result watch.Result
	for _, one := range must(sure(sessions.Results(ctx).Limit(100).Execute)).Results {
		if one.Session == name {
			result = one
		}
	}
	_, missing := sure(sessions.Files(ctx).Session(name).Path("nothing").Execute)
	var large watch.Bytes
	must(0, json.Unmarshal([]byte(`{"uploaded": 9223372036854775807, "total": 9223372036854775807}`), &large))
	fmt.Println(string(must(json.Marshal(map[string]any{
		"alive":        must(sure(client.ServiceAPI.Livez(ctx).Execute)),
		"again":        code(again),
		"missing":      code(missing),
		"stop":         stopped.State,
		"same start":   started.StartedAt.Equal(ended.StartedAt) && ended.StartedAt.Equal(result.Began),
		"receipts":     receipted,
		"sent":         result.Files.Sent,
		"bytes":        result.Bytes,
		"drained":      ended.Result.Get().Drained,
		"all receipts": result.Receipts.IsSet() && result.Receipts.Get() != nil,
		"largest":      large.Total,
	}))))
}
