-- Reads the code of an error that comes as an event of a stream, for the access log. Envoy's own
-- filter for it, sse_to_metadata, crashes where an event is valid JSON and no container.
-- `namespace` and `key` say where to: the lines before these define them.

local LONGEST_LINE_BYTES = 8192

-- OpenAI's shape, {"error": {..., "code": 503}}, and Anthropic's, which has words for codes.
-- A text that a model writes cannot look like either: within a string quotes are escaped.
local function code_of(line)
  if line:find('^data: ?{"error": ?[{"]') then
    return tonumber(line:match('^.*"code": ?"?(%d%d%d)%D')) or 500
  elseif line:find('^data: ?{"type": ?"error"') then
    return line:find('"invalid_request_error"', 1, true) and 400 or 500
  end
end

-- What a line is can be seen at its ends.
local function shortened(line)
  local half = LONGEST_LINE_BYTES / 2
  return #line <= 2 * half and line or line:sub(1, half) .. line:sub(-half)
end

function envoy_on_response(handle)
  local content_type = handle:headers():get("content-type")
  if not (content_type and content_type:find("^text/event%-stream")) then
    return
  end
  local unfinished = ""
  for chunk in handle:bodyChunks() do
    local text = unfinished .. chunk:getBytes(0, chunk:length())
    if text:find('"error"', 1, true) then
      for line in text:gmatch("[^\r\n]+") do
        local code = code_of(line)
        if code then
          handle:streamInfo():dynamicMetadata():set(namespace, key, code)
        end
      end
    end
    unfinished = shortened(text:match("^.*\n(.*)$") or text)
  end
end
