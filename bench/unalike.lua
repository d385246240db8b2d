-- Each request differs from all others in a header that no server knows, and sends credentials.
-- Arguments: bytes of a range, and of what it is a range of; without them all is asked for.
local count, length, size = 0, nil, nil

function init(args)
  length, size = tonumber(args[1]), tonumber(args[2])
end

function request()
  count = count + 1
  wrk.headers["X-Count"] = tostring(count)
  wrk.headers["Authorization"] = "Basic YmVuY2g6YmVuY2g="
  if length then
    local first = (count * 65536) % (size - length)
    wrk.headers["Range"] = "bytes=" .. first .. "-" .. (first + length - 1)
  end
  return wrk.format()
end
