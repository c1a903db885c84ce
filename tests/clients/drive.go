// Drives a session with the client that openapi-generator makes: `drive URL SHARE SESSION`; prints what it saw.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
		seen, _, err := sessions.Status(ctx).Session(name).Wait(wait).Execute()
		return must(seen, err).Sessions[0]
	}
	receipts := func() [][2]any {
		page, _, err := sessions.Files(ctx).Session(name).State(watch.DONE).Execute()
		var found [][2]any
		for _, one := range must(page, err).Files {
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
	stopped, _, err := sessions.Stop(ctx).StopRequest(*watch.NewStopRequest(name)).Execute()
	must(stopped, err)
	ended := look(30)
	for ended.State != watch.ENDED {
		ended = look(30)
	}
	listed, _, err := sessions.Results(ctx).Limit(100).Execute()
	var result watch.Result
	for _, one := range must(listed, err).Results {
		if one.Session == name {
			result = one
		}
	}
	_, _, missing := sessions.Files(ctx).Session(name).Path("nothing").Execute()
	alive, _, err := client.ServiceAPI.Livez(ctx).Execute()
	var large watch.Bytes
	must(0, json.Unmarshal([]byte(`{"uploaded": 9223372036854775807, "total": 9223372036854775807}`), &large))
	fmt.Println(string(must(json.Marshal(map[string]any{
		"alive":        must(alive, err),
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
