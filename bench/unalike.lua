-- Each request differs from all others in a header that no server knows.
local count = 0

function request()
  count = count + 1
  wrk.headers["X-Count"] = tostring(count)
  return wrk.format()
end
